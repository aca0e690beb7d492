"""Transfers through middleboxes: the cases with what RFC 8684 asks, and two ways to run them."""
