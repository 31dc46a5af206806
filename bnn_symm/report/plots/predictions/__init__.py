"""Draw predictions: calibration, predicted against observed, confusion, bands and shifts."""
