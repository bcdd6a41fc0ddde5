"""Two apples with tax, on a computational graph of two multiplications.

The chapter's first example: an apple costs 100, there are 2, the tax is 10%. Forward gives the
price; backward tells how much the price changes with each of the three numbers.
"""

from xbp.layers import MulLayer

apple, apple_count, tax = 100, 2, 1.1

apples, with_tax = MulLayer(), MulLayer()

# Forward, from left to right.
apples_price = apples.forward(apple, apple_count)
price = with_tax.forward(apples_price, tax)
print(f"price: {price:.0f}")

# Backward, from right to left: each layer knows only its own two inputs.
dapples_price, dtax = with_tax.backward(1)
dapple, dapple_count = apples.backward(dapples_price)
print(f"d price / d apple: {dapple:.1f}")
print(f"d price / d apple count: {dapple_count:.0f}")
print(f"d price / d tax: {dtax}")
