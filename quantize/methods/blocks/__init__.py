"""What rounds a block of columns, one column after another: in C++, in Triton or by torch."""
