"""What every part uses: errors, units, files."""
