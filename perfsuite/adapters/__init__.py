"""Trainings of other libraries; each module needs its own, which perfsuite's extra installs."""
