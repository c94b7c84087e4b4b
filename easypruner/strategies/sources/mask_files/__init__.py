"""Files of masks, of EasyPruner and of other programs: one module for each format."""
