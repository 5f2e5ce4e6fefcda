"""Google's Pub/Sub protocol in front of a home's topics, so that Google's client reads them."""
