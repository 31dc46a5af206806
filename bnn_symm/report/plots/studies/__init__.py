"""Draw the figures of a study; `styles` gives each setting the same style in all of them."""
