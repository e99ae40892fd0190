"""A local page on which people try a suspect and its cleaned model (extra `web`)."""
