"""What goes to the Hub: every upload, and the cards."""
