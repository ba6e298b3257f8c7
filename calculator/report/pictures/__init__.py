"""Memory over context as a picture: SVG, PNG, or letters on a terminal."""
