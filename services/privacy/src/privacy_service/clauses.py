"""The clauses of the privacy policy, worded for the people whom they protect. Ids are those of the policy document."""

from typing import Final

PARTS: Final = {
    "C": "Collection",
    "U": "Use",
    "S": "Keeping it safe",
    "D": "Sharing",
    "R": "Your rights",
    "V": "When this policy changes",
}

CLAUSES: Final = {
    "C1": "We ask only for what the shop and your orders need: your registration, who receives a parcel and where, "
    "the proof of a payment, how you use the shop, your favourites, and your orders.",
    "C2": "We do not collect sensitive data, such as identity papers, biometrics or your private life, unless you choose to "
    "send it to us.",
    "U1": "Who receives a parcel and where serves the warehouse, the transport and the delivery to the door.",
    "U2": "Your account and your orders serve to check an order, to keep the record of it, and to settle returns and refunds.",
    "U3": "What you look at serves to arrange the pages and the products that you see.",
    "U4": "Your contact details serve to tell you how a delivery goes, how a return ended, and what we must tell you.",
    "U5": "We never use your data for advertising that has nothing to do with your orders, for private marketing, or for "
    "services outside the shop.",
    "S1": "Personal data is kept in closed stores, apart from everything else.",
    "S2": "Each of our people sees only what their task needs, and every look is recorded.",
    "S3": "Nobody outside can reach these stores.",
    "S4": "All personal data and all orders are stored encrypted.",
    "S5": "The stores are maintained regularly, so that nothing is lost, damaged or leaked.",
    "S6": "We keep valid orders and accounts for a reasonable time, so that we can help after the sale and honour guarantees.",
    "S7": "What is no longer needed or no longer right is cleared away regularly.",
    "D1": "We do not sell, rent or hand over your data to others, nor to teams of ours that have no part in your order.",
    "D2": "One exception: the carrier of your parcel gets the address and the contact that the delivery needs.",
    "D3": "Carriers are bound to confidentiality.",
    "D4": "Your data never appears where the public can see it.",
    "R1": "You can change and correct your address, your contact details and your basic account data yourself, at any time.",
    "R2": "You can get your order history and the data connected with your shopping from our customer service.",
    "R3": "You can ask customer service to correct or clear your data. We do it within the usual time; what the law makes us "
    "keep of an order stays until then.",
    "V1": "This policy can change.",
    "V2": "A new version is shown on this page at once.",
    "V3": "It takes effect by itself after it has been shown.",
    "V4": "Who goes on using the shop accepts the version in force.",
}
