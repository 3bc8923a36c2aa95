"""Rendering of faces: who is drawn (`Person`), how (`View`), and the picture. Imports no torch."""

from ._face import face_landmarks as face_landmarks
from ._face import render_face as render_face
from ._person import Person as Person
from ._person import View as View
