"""Two workers talk on a workspace; each reads all that is said with an iterator of its own."""

from sleighexec import Sleigh

NAMES = ["Ann", "Bob"]
LINES = {
    "Ann": ["Hello, is somebody there?", "Did your tasks finish?", "Good. Bye!"],
    "Bob": ["Yes, I am.", "All of them.", "Bye!"],
}


def talk():
    """Say a line whenever the other one has said something; what was heard."""
    me, heard = NAMES[SleighRank], []
    lines = iter(LINES[me])
    if SleighRank == 0:
        SleighUserNws.store("chat", (me, next(lines)))
    for name, text in SleighUserNws.ifind("chat", timeout=10):  # waits for the next line
        heard.append(text)
        if name != me and (answer := next(lines, None)) is not None:
            SleighUserNws.store("chat", (me, answer))
        if len(heard) == sum(map(len, LINES.values())):
            break
    return heard


s = Sleigh(workerCount=2)
ann, bob = s.eachWorker(talk)
for name, text in s.userNws.ifindTry("chat"):  # nobody took anything: it is all still there
    print(f"{name}: {text}")
print("both heard the same:", ann == bob)
s.stop()

# prints: Ann: Hello, is somebody there?
# prints: Bob: Yes, I am.
# prints: Ann: Did your tasks finish?
# prints: Bob: All of them.
# prints: Ann: Good. Bye!
# prints: Bob: Bye!
# prints: both heard the same: True
