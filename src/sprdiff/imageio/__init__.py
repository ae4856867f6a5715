"""Pictures in and out: opening, colour, resizing, saving."""
