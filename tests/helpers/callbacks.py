"""Callbacks that end a fit early."""


class StopAt:
    """Asks to stop after some iterations."""

    def __init__(self, number):
        self.number = self.left = number

    def setup(self, estimator, context):
        self.left = self.number

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, **_):
        pass

    def on_fit_task_end(self, estimator, context, **_):
        self.left -= context.parent is not None
        return self.left <= 0
