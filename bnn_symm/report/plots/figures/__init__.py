"""Write figures as PNG files or as SVG inside a page, with names shown literally."""
