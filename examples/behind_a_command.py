"""Workers behind a command that carries stdin and stdout, as srun, docker run -i or ssh do."""

import os

from sleighexec import Command, Local, SleighExecutor

if __name__ == "__main__":
    places = [Local(1), Command("env WHERE=there {agent}", workers=2)]
    with SleighExecutor(launcher=places) as executor:
        print(executor.eachWorker(os.getenv, "WHERE"))
        print(sum(executor.map(lambda x: x * x, range(100))))

# prints: [None, 'there', 'there']
# prints: 328350
