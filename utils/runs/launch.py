"""From the command line to a run: what all entry points share."""

from collections.abc import Collection
from typing import Any

import agents
from utils.agent_files import load_agent_file, published_settings
from utils.devices import enable_compilation_cache, enable_cpu_backend
from utils.runs import settings as config
from utils.runs.run import Run


def launch(run_class: type[Run], unpublished: Collection[str] = ()) -> None:
    """Do the command line's job: an entry point's last line.

    Args:
        run_class: What to run.
        unpublished: Settings that keep their default whatever an agent's table says of the task.
    """

    def main() -> int:
        enable_cpu_backend()
        enable_compilation_cache()
        agent_class, module = load_agent_file(config.agent_path())

        def published(env_name: str) -> dict[str, Any]:
            found = published_settings(module, env_name)
            return {key: value for key, value in found.items() if key not in unpublished}

        with run_class(config.resolve(published), agent_class) as run:
            return run.execute()

    config.launch(main, lambda path: load_agent_file(path)[1].get_config(), agents.DEFAULT)
