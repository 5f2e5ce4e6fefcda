"""What an alert is: values, photometry, light curves, cutouts."""
