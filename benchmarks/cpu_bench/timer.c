/* Runs a compiled network with one input and one output, and times it.
 *
 *     timer INPUT [OUTPUT]
 *
 * The first run reads the file INPUT, writes the result to the file OUTPUT and prints "first" and the
 * instructions in use. Then for each line N on standard input: one run that does not count and N
 * that do; it prints their seconds, and the seconds of CPU time of one run behind a bar.
 * With MODEL_PROFILE it ends with a line for each step: operator, name, kernel, products, nanoseconds at
 * best, with tabs between them. The macros INPUT_TYPE, INPUT_ELEMENTS, OUTPUT_TYPE, OUTPUT_ELEMENTS and INSTRUCTIONS are given by
 * the command line of the compiler.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200112L
#endif
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    static INPUT_TYPE input[INPUT_ELEMENTS];
    static OUTPUT_TYPE output[OUTPUT_ELEMENTS];
    void *arena;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    long runs;

    if (file == NULL || fread(input, sizeof input, 1, file) != 1
        || posix_memalign(&arena, 64, MODEL_ARENA_BYTES) != 0) {
        return 1;
    }
    fclose(file);
    if (model_run(input, output, arena) != MODEL_OK) {
        return 2;
    }
    printf("first %s\n", INSTRUCTIONS);
    fflush(stdout);
    if (argc > 2) {
        file = fopen(argv[2], "wb");
        if (file == NULL || fwrite(output, sizeof output, 1, file) != 1 || fclose(file) != 0) {
            return 3;
        }
    }
    while (scanf("%ld", &runs) == 1) {
        double cpu;
        model_run(input, output, arena);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (long run = 0; run < runs; ++run) {
            const double begin = seconds(CLOCK_MONOTONIC);
            model_run(input, output, arena);
            printf("%.9f ", seconds(CLOCK_MONOTONIC) - begin);
        }
        printf("| %.9f\n", (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (double)runs);
        fflush(stdout);
    }
#ifdef MODEL_PROFILE
    for (int32_t i = 0; i < model_step_count(); ++i) {
        const model_step *const step = model_get_step(i);
        printf("%s\t%s\t%s\t", step->op, step->name, step->kernel);
        printf("%.0f\t%.0f\n", (double)step->macs, (double)step->least);
    }
#endif
    return 0;
}
