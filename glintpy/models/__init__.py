"""What the user holds: handles to models, and the checks on what is typed; knows servers only by messages."""
