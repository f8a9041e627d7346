"""From real-valued operators to exact sums, multipliers and tables: one rule for each operator."""
