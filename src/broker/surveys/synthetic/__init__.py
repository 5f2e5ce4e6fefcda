"""What the packet writers of all surveys share: columns in, encoded records and cutouts out."""
