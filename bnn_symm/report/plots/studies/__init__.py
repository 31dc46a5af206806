"""Draw the figures of a study; `styles` gives each setting one look in all of them."""
