"""Plain English for a pretrained model, written for this project: to score, to calibrate, to go on.

No text is in two of the lists.
"""

from __future__ import annotations

HELD_OUT = [
    "The old lighthouse at the end of the harbour had not been used for thirty years. Its lamp was "
    "gone, its windows were boarded up, and the path that led to it was covered with grass. Still, "
    "the people of the village painted it white every spring, because a coast without a "
    "lighthouse, they said, was like a house without a door.",
    "Bread needs only four things: flour, water, salt and yeast. The flour and the water are mixed "
    "first and left to rest for half an hour. Then the salt and the yeast are added, and the dough "
    "is folded every twenty minutes until it is smooth. It rises slowly in a cool place overnight "
    "and is baked the next morning in a very hot oven.",
    "A river does not run in a straight line for long. Where the bank is soft, the water takes a "
    "little of it away, and where the current is slow, it leaves sand behind. Over many years a "
    "small bend becomes a large one, until the river breaks through at the narrowest point and "
    "leaves a lake in the shape of a horseshoe.",
    "When my grandmother moved to the city, she brought three things with her: a sewing machine, a "
    "box of photographs and a bicycle that nobody was allowed to touch. She rode it to the market "
    "every Saturday, even in winter, and came back with apples, cheese and the news of the whole "
    "street.",
    "Computers store numbers as rows of switches that are either on or off. Eight such switches "
    "can hold any number from zero to two hundred and fifty-five. If fewer switches are used, the "
    "numbers take less room, but some of them can no longer be told apart, and every calculation "
    "becomes a little less exact.",
    "The train was late again, so the passengers began to talk to each other. A teacher was on her "
    "way to a new school, two brothers were visiting their father in hospital, and an old man "
    "carried a violin that he had just bought. By the time the train arrived, he had promised to "
    "play for all of them.",
    "Trees in a forest compete for light. The tallest ones spread their branches above the others "
    "and leave only a dim green shade below. When one of them falls in a storm, the sun reaches "
    "the ground, and within a few weeks hundreds of seedlings begin to grow towards the gap.",
    "The museum opens at ten o'clock in the morning and closes at six in the evening, except on "
    "Mondays, when it is closed all day. Tickets can be bought at the entrance. Children under the "
    "age of twelve do not have to pay, and large bags must be left at the desk.",
]

CALIBRATION = [
    "The farmer looked at the sky and decided to bring in the hay before noon. Clouds were "
    "gathering over the mountains, and the air had become very still, which in that valley always "
    "meant that rain would fall before the evening.",
    "To change a tyre, first loosen the nuts while the wheel is still on the ground. Then lift the "
    "car with the jack, take the nuts off, replace the wheel, and tighten the nuts again in the "
    "shape of a star.",
    "Light travels so fast that it could circle the Earth seven times in a second. Even so, the "
    "light of the nearest star needs more than four years to reach us, and that of distant "
    "galaxies millions of years.",
    "Dear Anna, thank you for your letter. We are all well, and the children have grown so much "
    "that you would hardly know them. The garden is full of tomatoes this year. Please come and "
    "visit us in August, as you promised.",
    "The court decided that the company had to pay for the damage, because it had known about the "
    "fault for two years and had not told its customers. The company said that it would appeal "
    "against the decision.",
    "An octopus has three hearts and eight arms, and each of its arms can taste what it touches. "
    "It can change its colour in less than a second, and it squeezes through any gap that is "
    "larger than its beak.",
    "In chess, the bishop moves along the diagonals, the rook along the rows and columns, and the "
    "queen along all of them. The knight is the only piece that can jump over others, which makes "
    "it useful early in the game.",
    "Prices rose by three percent last year, while wages grew by only two. Many families therefore "
    "spent less on clothes, travel and restaurants, and more of them bought their food in the "
    "cheaper supermarkets.",
    "A function takes some values and returns a result. If it always returns the same result for "
    "the same values and changes nothing else, it is called pure. Pure functions are easy to test "
    "and easy to understand.",
    "She opened the drawer slowly. Inside lay a pair of gloves, a broken watch and a key with a "
    "blue ribbon. She had never seen the key before, but she knew at once which door it would "
    "open.",
    "The heart pumps about five litres of blood through the body every minute. During hard "
    "exercise it can pump four times as much. The muscles then receive more oxygen, and the skin "
    "turns red because it gives off heat.",
    "Turn left at the church, cross the bridge, and follow the road along the canal for about two "
    "kilometres. You will see a yellow house with a red roof. The path to the lake begins directly "
    "behind it.",
    "Volcanoes form where melted rock rises through the crust of the Earth. Some of them erupt "
    "with great violence and throw ash high into the air, while others let the lava flow quietly "
    "down their sides for years.",
    "The orchestra tuned its instruments while the last guests found their seats. Then the lights "
    "went out, the conductor raised her hand, and for a moment the great hall was so quiet that "
    "one could hear the rain.",
    "Question: What is the difference between weather and climate? Answer: Weather is what happens "
    "in the air today or tomorrow. Climate is the average of the weather over many years, usually "
    "thirty or more.",
    "Wash the rice until the water runs clear. Put it into a pot with one and a half times as much "
    "water, bring it to the boil, cover it, and let it cook on a low heat for twelve minutes "
    "without lifting the lid.",
    "The first people who crossed the desert followed the stars at night and rested during the "
    "day. They knew every well on the way, and they taught their children the names of the stars "
    "before the names of the kings.",
    "A vaccine shows the body a harmless part of a virus. The body learns to recognise it and "
    "keeps the memory for years. When the real virus comes, the defence is ready within hours and "
    "not within days.",
    "Our team lost the first three matches and won the next eleven. The coach said that nothing "
    "had changed except the mood: the players had begun to trust each other, and they were no "
    "longer afraid of making mistakes.",
    "The bridge was built in four years and opened in the summer of 1932. It is more than a "
    "kilometre long, it carries eight lanes of traffic and two railway lines, and it is painted "
    "again and again from end to end.",
    "Bats find their way in the dark by listening. They send out short, high calls and wait for "
    "the echo. From the time it takes and from its direction they know where a moth is and how "
    "fast it flies.",
    "If the alarm rings, leave the building by the nearest exit and do not use the lifts. Meet at "
    "the car park behind the library. Nobody may go back inside until the fire service says that "
    "it is safe.",
    "He had been a sailor, a cook, a soldier and a teacher, and he told stories about all of it. "
    "Nobody knew which of them were true. The best ones always began with the words: you will not "
    "believe this.",
    "A triangle has three sides and three angles, and the angles always add up to one hundred and "
    "eighty degrees. If one of them is a right angle, the squares of the two short sides add up to "
    "the square of the long one.",
    "The bank lends money to people who want to buy a house. They pay it back over twenty or "
    "thirty years, with interest. If they cannot pay any longer, the bank may sell the house to "
    "get its money back.",
    "Snow fell for three days, and on the fourth morning the village was silent and white. The "
    "road was closed, the school was closed, and the children went down the hill on trays, boxes "
    "and anything else that would slide.",
    "Coffee grows on small trees in warm countries near the equator. The fruit is red and looks "
    "like a cherry. Inside are two green seeds, which are dried, roasted until they are brown, and "
    "then ground into powder.",
    "The mayor thanked the volunteers who had cleaned the park. In a single weekend they had "
    "collected two tons of rubbish, repaired eleven benches and planted sixty trees. A second "
    "weekend is planned for October.",
    "Iron rusts when it meets water and air. Paint keeps both of them away, and so does a thin "
    "layer of zinc. In dry deserts, however, old railway engines stand in the open for a hundred "
    "years and hardly change.",
    "When you learn a language, read what you enjoy. A simple story that you want to finish "
    "teaches you more than a difficult book that you put away. Speak from the first day, even "
    "if you make many mistakes.",
    "The detective looked at the two cups on the table. One was empty, and the other had not been "
    "touched. Somebody had sat here and waited for a guest, she thought, and the guest had come, "
    "but not for tea.",
    "Whales are mammals and must come to the surface to breathe. Some of them can stay below for "
    "more than an hour. They sleep with only half of their brain at a time, so that they do not "
    "forget to breathe.",
    "To install the program, download the archive, unpack it into an empty folder and run the "
    "setup file. It asks for a name and a password, copies its files, and starts the service. The "
    "log is kept in the same folder.",
    "The Romans built roads that lasted for two thousand years. They dug a deep trench, filled it "
    "with layers of stone, gravel and sand, and covered it with flat slabs, higher in the middle, "
    "so that the rain ran off.",
    "My neighbour keeps bees on the roof of our building. In May they fly to the chestnut trees "
    "along the avenue, in June to the lime trees in the park, and in July they come to the basil "
    "on my balcony.",
    "Sound needs something to travel through: air, water or a wall. In water it is four times as "
    "fast as in air, and in steel fifteen times as fast. In empty space, between the planets, "
    "there is no sound at all.",
]

_THRICE = {
    "My sister paints small houses by the river in the morning, and my brother reads old books in "
    "the garden.": "My sister paints",
    "Bees make honey from the flowers of the field, birds build a nest in the tree, and fish swim "
    "in the cold river.": "Bees make honey",
    "Seven green bottles, four red apples and a blue umbrella were lying under the wooden table in "
    "the kitchen.": "Seven green bottles,",
}
"""Sentences to repeat, and how each begins."""

PROMPTS = [
    *(f"{sentence} {sentence} {sentence} {start}" for sentence, start in _THRICE.items()),
    "1, 2, 3, 4, 5, 6, 7,",
    "2, 4, 6, 8, 10, 12,",
    "5, 10, 15, 20, 25, 30,",
    "10, 20, 30, 40,",
    "100, 101, 102, 103, 104,",
    "100, 200, 300, 400,",
    "1900, 1901, 1902, 1903,",
]
"""What SmolLM2-135M goes on from without a doubt: for 16 tokens the best logit is 1.4 or more above
the second, and rounding all its weights to 4 bits in groups of 64 changes none. Its answers to
questions are no such signal: the margin there is often below 0.1.
"""
