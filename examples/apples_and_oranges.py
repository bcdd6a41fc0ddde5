"""Apples and oranges with tax: multiplications and an addition.

The chapter's second example: 2 apples of 100, 3 oranges of 150, 10% tax.
"""

from xbp.layers import AddLayer, MulLayer

apples, oranges, fruit, with_tax = MulLayer(), MulLayer(), AddLayer(), MulLayer()

# Forward: the basket is the sum of two products.
basket = fruit.forward(apples.forward(100, 2), oranges.forward(150, 3))
price = with_tax.forward(basket, 1.1)
print(f"price: {price:.0f}")

# Backward: the addition hands the derivative on unchanged, to both sides.
dbasket, dtax = with_tax.backward(1)
dapples, doranges = fruit.backward(dbasket)
dapple, dapple_count = apples.backward(dapples)
dorange, dorange_count = oranges.backward(doranges)
print(f"d price / d apple: {dapple:.1f}, d price / d apple count: {dapple_count:.0f}")
print(f"d price / d orange: {dorange:.1f}, d price / d orange count: {dorange_count:.0f}")
print(f"d price / d tax: {dtax}")
