"""Multipath TCP v1 (RFC 8684) in user space."""
