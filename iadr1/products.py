"""The products of the made benchmark: those to train on, named or invented, and those of the six test sets, which never occur in training."""

from iadr1.invented import catalogue
from iadr1.synthetic import Part, Product, circle, lattice

STEEL, DARK, BRASS, COPPER = (0.62, 0.64, 0.66), (0.3, 0.31, 0.33), (0.72, 0.6, 0.33), (0.7, 0.45, 0.32)
WHITE, BLUE, GREEN, RED = (0.86, 0.86, 0.83), (0.3, 0.42, 0.68), (0.2, 0.48, 0.32), (0.72, 0.28, 0.24)
SAND, GREY, BROWN, CREAM = (0.72, 0.66, 0.54), (0.52, 0.52, 0.52), (0.48, 0.36, 0.26), (0.84, 0.78, 0.64)
LIGHT = (0.8, 0.8, 0.78)

NAMED: dict[str, Product] = {
    "washer": Product(STEEL, "brushed", 0.04, (Part("disk", (0.72,)), Part("disk", (0.3,), cut=True))),
    "gear": Product(
        DARK, "grainy", 0.04, (Part("gear", (0.68, 12)), Part("ring", (0.42, 0.04), tone=0.12), Part("disk", (0.16,), cut=True)), LIGHT, 3.0
    ),
    "drilled plate": Product(
        STEEL, "plain", 0.05, (Part("box", (0.8, 0.6, 0.06)), Part("disk", (0.09,), lattice(3, 2, 0.5, 0.55), cut=True))
    ),
    "button": Product(
        RED,
        "plain",
        0.04,
        (Part("disk", (0.72,)), Part("ring", (0.6, 0.05), tone=0.12), Part("disk", (0.09,), circle(4, 0.2), cut=True)),
        LIGHT,
        3.0,
    ),
    "connector": Product(
        WHITE, "plain", 0.03, (Part("box", (0.78, 0.46, 0.05)), Part("box", (0.07, 0.24, 0.02), lattice(5, 1, 0.28, 0), tone=-0.45))
    ),
    "cross fitting": Product(
        BRASS, "cloudy", 0.03, (Part("box", (0.78, 0.24, 0.05)), Part("box", (0.24, 0.78, 0.05)), Part("disk", (0.2,), tone=0.15))
    ),
    "toy block": Product(
        BLUE, "plain", 0.03, (Part("box", (0.7, 0.7, 0.1)), Part("disk", (0.17,), lattice(2, 2, 0.6, 0.6), tone=0.16)), LIGHT
    ),
    "angle": Product(COPPER, "brushed", 0.04, (Part("box", (0.74, 0.74, 0.04)), Part("box", (0.5, 0.5), ((0.34, -0.34),), cut=True))),
    "knob": Product(
        DARK,
        "plain",
        0.04,
        (Part("octagon", (0.68,)), Part("disk", (0.42,), tone=0.12), Part("box", (0.05, 0.36), ((0, -0.4),), tone=0.35)),
        LIGHT,
        0.5,
    ),
    "label": Product(CREAM, "plain", 0.03, (Part("box", (0.82, 0.6, 0.12)), Part("box", (0.55, 0.05), lattice(1, 3, 0, 0.3), tone=-0.4))),
    "flange": Product(
        STEEL,
        "brushed",
        0.04,
        (Part("disk", (0.74,)), Part("disk", (0.07,), circle(6, 0.55), cut=True), Part("disk", (0.26,), cut=True)),
        turn=3.0,
    ),
    "socket": Product(
        WHITE,
        "plain",
        0.03,
        (Part("box", (0.72, 0.72, 0.2)), Part("disk", (0.42,), tone=-0.15), Part("disk", (0.08,), ((-0.2, 0), (0.2, 0)), tone=-0.5)),
        BLUE,
    ),
    "comb": Product(
        RED, "plain", 0.03, (Part("box", (0.8, 0.14, 0.04), ((0, -0.5),)), Part("box", (0.05, 0.5, 0.03), lattice(8, 1, 0.2, 0))), LIGHT
    ),
    "dice": Product(
        CREAM,
        "plain",
        0.03,
        (
            Part("box", (0.66, 0.66, 0.15)),
            Part("disk", (0.1,), ((-0.36, -0.36), (0.36, 0.36), (0, 0), (-0.36, 0.36), (0.36, -0.36)), tone=-0.5),
        ),
        GREEN,
    ),
    "heat sink": Product(
        DARK, "brushed", 0.03, (Part("box", (0.78, 0.78, 0.02)), Part("box", (0.78, 0.05), lattice(1, 6, 0, 0.28), tone=0.2)), LIGHT
    ),
    "pills": Product(
        WHITE, "plain", 0.03, (Part("box", (0.85, 0.6, 0.08), tone=-0.35), Part("disk", (0.18,), lattice(3, 2, 0.54, 0.55), tone=0.1)), BLUE
    ),
    "lid": Product(
        BRASS,
        "plain",
        0.03,
        (Part("disk", (0.76,)), Part("ring", (0.66, 0.03), tone=-0.2), Part("ring", (0.36, 0.03), tone=-0.2)),
        DARK,
        3.0,
    ),
    "hinge": Product(
        STEEL,
        "plain",
        0.04,
        (
            Part("box", (0.36, 0.7, 0.03), ((-0.42, 0), (0.42, 0))),
            Part("box", (0.09, 0.75, 0.05), tone=0.12),
            Part("disk", (0.08,), lattice(2, 3, 0.84, 0.45), cut=True),
        ),
    ),
    "shuttle": Product(
        COPPER,
        "cloudy",
        0.03,
        (Part("octagon", (0.4,), lattice(2, 1, 0.7, 0)), Part("box", (0.4, 0.1)), Part("disk", (0.12,), lattice(2, 1, 0.7, 0), cut=True)),
        LIGHT,
    ),
    "keyboard": Product(
        DARK, "plain", 0.03, (Part("box", (0.86, 0.56, 0.06)), Part("box", (0.1, 0.1, 0.03), lattice(6, 4, 0.26, 0.25), tone=0.18)), SAND
    ),
    "leatherette": Product(BROWN, "grainy", 0.07),
    "slate": Product(DARK, "cloudy", 0.06),
    "ribbon": Product(BLUE, "striped", 0.09, turn=0.4),
    "mosaic": Product(SAND, "checked", 0.1, turn=0.3),
    "linen": Product(CREAM, "woven", 0.09, turn=0.2),
    "felt": Product(RED, "grainy", 0.04, zoom=0.7),
    "perforated foil": Product(WHITE, "dotted", 0.1, turn=0.3),
    "corduroy": Product(GREEN, "striped", 0.07, zoom=0.7, turn=1.5),
    "plaster": Product(LIGHT, "plain", 0.1),
    "sheet metal": Product(STEEL, "brushed", 0.06),
}

# Thirty products teach their own looks; a hundred more teach what no look decides.
TRAIN = NAMED | catalogue(100, seed=1)

MVTEC: dict[str, Product] = {
    "bottle": Product(
        GREEN, "plain", 0.03, (Part("disk", (0.78,)), Part("ring", (0.62, 0.07), tone=0.25), Part("disk", (0.4,), tone=-0.12)), LIGHT, 3.0
    ),
    "metal_nut": Product(
        STEEL, "grainy", 0.04, (Part("hexagon", (0.62,)), Part("ring", (0.42, 0.05), tone=0.15), Part("disk", (0.3,), cut=True)), turn=3.0
    ),
    "capsule": Product(
        RED,
        "plain",
        0.03,
        (
            Part("box", (0.82, 0.36, 0.35)),
            Part("box", (0.38, 0.36), ((0.4, 0),), tone=-0.25),
            Part("box", (0.5, 0.03), ((0, -0.18),), tone=0.25),
        ),
        LIGHT,
    ),
    "carpet": Product(GREY, "woven", 0.1, turn=0.6, zoom=0.8),
    "leather": Product(RED, "grainy", 0.06, zoom=1.3),
}

VISA: dict[str, Product] = {
    "pcb1": Product(
        GREEN,
        "plain",
        0.03,
        (
            Part("box", (0.84, 0.62, 0.03)),
            Part("box", (0.16, 0.12), lattice(2, 2, 0.8, 0.6), tone=-0.25),
            Part("disk", (0.07,), lattice(4, 1, 0.2, 0), tone=0.4),
        ),
    ),
    "candle": Product(
        CREAM,
        "plain",
        0.03,
        (Part("disk", (0.34,), lattice(2, 2, 0.84, 0.84)), Part("disk", (0.06,), lattice(2, 2, 0.84, 0.84), tone=-0.4)),
        DARK,
    ),
    "cashew": Product(SAND, "cloudy", 0.04, (Part("ring", (0.48, 0.22)), Part("box", (0.5, 0.4), ((0, 0.5),), cut=True)), BLUE, 0.5),
}

MPDD: dict[str, Product] = {
    "bracket_black": Product(
        DARK,
        "plain",
        0.03,
        (
            Part("box", (0.2, 0.8, 0.05)),
            Part("box", (0.7, 0.18, 0.05), ((0, -0.6),)),
            Part("disk", (0.08,), ((0, 0.5), (-0.45, -0.6), (0.45, -0.6)), cut=True),
        ),
        LIGHT,
    ),
    "metal_plate": Product(STEEL, "brushed", 0.07, (Part("box", (0.86, 0.72, 0.02)),), DARK),
    "tubes": Product(
        COPPER,
        "plain",
        0.03,
        (Part("box", (0.15, 0.82, 0.12), lattice(4, 1, 0.42, 0)), Part("box", (0.04, 0.78), lattice(4, 1, 0.42, 0), tone=0.22)),
        DARK,
    ),
}

DAGM: dict[str, Product] = {
    "Class1": Product(GREY, "grainy", 0.07),
    "Class2": Product(GREY, "cloudy", 0.07, zoom=0.7),
    "Class3": Product(GREY, "brushed", 0.09, turn=1.5),
    "Class4": Product(GREY, "dotted", 0.07, zoom=0.9, turn=0.8),
    "Class5": Product(GREY, "plain", 0.12),
    "Class6": Product(GREY, "striped", 0.06, zoom=0.6, turn=1.5),
}

DTD: dict[str, Product] = {
    "Woven_001": Product(SAND, "woven", 0.12, zoom=1.3, turn=0.5),
    "Mesh_114": Product(DARK, "dotted", 0.12, zoom=0.7, turn=0.3),
    "Marbled_078": Product(LIGHT, "cloudy", 0.08, zoom=1.2),
    "Stratified_154": Product(BROWN, "striped", 0.1, zoom=1.4, turn=0.2),
    "Matted_069": Product(GREEN, "grainy", 0.08),
}

SDD: dict[str, Product] = {
    "kos": Product(
        GREY, "brushed", 0.05, (Part("box", (1.3, 0.72)), Part("box", (1.3, 0.06), lattice(1, 2, 0, 1.1), tone=0.15)), DARK, 0.03
    )
}
