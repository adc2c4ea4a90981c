"""A launcher that hears of steady passes: for tests of what follows from times."""


def steadily(run, seconds):
    """A launcher's way to run a request, but every pass takes what is said, and undisturbed.

    Args:
        run: `dabench.run.launcher.Launcher.run`.
        seconds: Request -> seconds of each of its passes.
    """

    def steady(self, request, receive, *, timeout_s):
        def heard(message):
            if samples := message.get("samples"):
                calm = {"other_cores": 0.0, "throttled": None}
                passes = [(seconds(request), None) for _ in samples]
                message = {**message, "samples": passes, **calm}
            receive(message)

        return run(self, request, heard, timeout_s=timeout_s)

    return steady
