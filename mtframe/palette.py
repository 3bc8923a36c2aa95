"""Colours for boxes and curves."""

# Okabe and Ito's colours (jfly.uni-koeln.de/color, 2008), told apart with every kind of colour vision; without
# black, and yellow last because it is faint on bright pictures.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442")
