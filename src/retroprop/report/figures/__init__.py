"""The pictures of a report, each as one inline SVG; matplotlib is imported late."""
