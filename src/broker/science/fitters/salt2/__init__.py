"""SALT2 fits of supernova light curves: at stream rate, on sncosmo's chi-squared."""
