"""Turn-up checks: whether a box is fit for viewers, before it has any and daily after."""
