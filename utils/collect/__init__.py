"""Programs that collect datasets on this machine."""
