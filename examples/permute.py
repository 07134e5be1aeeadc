"""Put elements and fixed arguments into the order that a function wants."""

from sleighexec import Sleigh


def call(*arguments):
    return ", ".join(map(str, arguments))


s = Sleigh()
columns, fixed = [[1, 2], ["a", "b"]], [8, 9]  # in this order: element 0, element 1, 8, 9
for order in (None, [3, 2, 1, 0], [1, 0], [0, 0, -1], []):
    print(order, s.eachElem(call, columns, fixed, argPermute=order))

# Two functions whose fixed argument stands first:
print(s.eachElem(pow, [range(5)], 2), s.eachElem(pow, [range(5)], 2, argPermute=[1, 0]))
print(s.eachElem(isinstance, [[int, str, bool]], [True], argPermute=[1, 0]))
s.stop()

# prints: None ['1, a, 8, 9', '2, b, 8, 9']
# prints: [3, 2, 1, 0] ['9, 8, a, 1', '9, 8, b, 2']
# prints: [1, 0] ['a, 1', 'b, 2']
# prints: [0, 0, -1] ['1, 1, 9', '2, 2, 9']
# prints: [] ['', '']
# prints: [0, 1, 4, 9, 16] [1, 2, 4, 8, 16]
# prints: [True, False, True]
