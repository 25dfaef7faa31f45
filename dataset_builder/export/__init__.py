"""A dataset of this project in the forms that other trainers read."""
