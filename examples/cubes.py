"""Cube numbers in three ways: by submit, by map, and through the workspace."""

from sleighexec import SleighExecutor, current_worker


def cube_what_comes():
    """Take one number out of the workspace and put its cube in."""
    workspace = current_worker().workspace
    x = workspace.fetch("number")  # waits until there is one
    workspace.store("cube", x * x * x)


def main():
    with SleighExecutor(3) as executor:
        future = executor.submit(lambda x: x * x * x, 3)
        print("submit:", future.result())

        cubes = list(executor.map(lambda x: x * x * x, range(100)))
        print("map:", len(cubes), "cubes, in order:", cubes[2:5])

        workspace = executor.workspace
        for _ in range(3):
            executor.submit(cube_what_comes)
        for x in (2, 3, 4):
            workspace.store("number", x)
        print("workspace:", sorted(workspace.fetch("cube") for _ in range(3)))


if __name__ == "__main__":
    main()

# prints: submit: 27
# prints: map: 100 cubes, in order: [8, 27, 64]
# prints: workspace: [8, 27, 64]
