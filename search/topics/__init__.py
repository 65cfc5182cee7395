"""Topics: what an index, or a part of it, is about, whatever its languages."""

from search.topics.find import find_topics
from search.topics.records import Label, Topic, Topics

__all__ = ["Label", "Topic", "Topics", "find_topics"]
