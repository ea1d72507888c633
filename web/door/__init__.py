"""What every request passes on its way in and out, whether a page or a program sent it."""
