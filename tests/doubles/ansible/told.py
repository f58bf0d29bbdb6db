"""An Ansible callback: writes down what each task of a play came to, as lines of JSON in the file that TOLD names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "told"
    CALLBACK_NEEDS_ENABLED = True

    def _tell(self, line: dict[str, Any]) -> None:
        with Path(os.environ["TOLD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def _result(self, result: Any, **more: bool) -> None:
        wanted = ("changed", "failed", "msg", "stderr", "stdout", "exception", "results", "diff", "rc")
        said = {key: value for key, value in result.result.items() if key in wanted}
        self._tell({"host": result.host.get_name(), "task": result.task.get_name(), "result": {**said, **more}})

    def v2_runner_on_ok(self, result: Any) -> None:
        self._result(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._result(result, failed=not ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._result(result, item=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._tell({"stats": {host: stats.summarize(host) for host in sorted(stats.processed)}})
