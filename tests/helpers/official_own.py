"""Tables of a dataset of one's own, which the importers without a card read."""

from __future__ import annotations

from importer_fixtures import BLANKS, Fixture
from official_moments import EMPTY

CARD = """title: Ours
tasks: [{task}]
importer: {importer}
files:
  train: {{names: [train.csv], split: train}}
  test: {{names: [test.csv], split: test}}
where: here
licence: ours
splits: {{train: {{}}, test: {{}}}}
test_split: test
queries: {queries}
{group}: {{}}
"""

FIXTURES: dict[str, Fixture] = {
    "own-captions": Fixture(
        own_card=CARD.format(
            task="retrieval", importer="captions_csv", queries="paragraph", group="retrieval"
        ),
        files={
            "train.csv": 'video,caption,who\na,"a cat, asleep",x\na, it wakes ,y\nb,"a ""dog""",z',
            "test.csv": "video,caption\nc,a bird\n",
        },
        mended={BLANKS: 1},
    ),
    "own-moments": Fixture(
        own_card=CARD.format(
            task="moments", importer="moments_csv", queries="each_sentence", group="moments"
        ),
        files={
            "train.csv": "video,start_seconds,end_seconds,sentence\n"
            "a,1.5,4,a cat\na,-1,2, it wakes \nb,3,3,nothing",
            "test.csv": "video,start_seconds,end_seconds,sentence\nc,0,2,a bird\n",
        },
        mended={BLANKS: 1, "moments before the clip's start begin at 0": 1},
        left_out={EMPTY: 1},
    ),
    "own-questions": Fixture(
        own_card=CARD.format(
            task="multiple_choice",
            importer="questions_csv",
            queries="questions",
            group="questions",
        ),
        files={
            "train.csv": "video,question,option0,option1,answer,type\n"
            "a,who?,cat, dog ,1,W\na,why?,x,y,,",
            "test.csv": "video,question,answer\nc,what?,a bird\n",
        },
        mended={BLANKS: 1},
    ),
}
