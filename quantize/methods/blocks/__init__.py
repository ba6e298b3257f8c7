"""What rounds a block of columns, one column after another: in C++ or by torch."""
