"""Uploads to the Hub, and the cards of datasets and models."""
