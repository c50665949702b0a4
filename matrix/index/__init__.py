"""What a package index holds, asked through the user's own settings; nothing of it is trusted."""
