"""Where it runs: an agent with its handlers, links, channels, topics and kept links."""

from autolink.agent.agent import ANYONE_TRUSTED, Agent, AgentStatistics
from autolink.agent.call import Call
from autolink.agent.channel import Channel, ChannelStatistics
from autolink.agent.handlers import Handlers
from autolink.agent.kept import KeptLink
from autolink.agent.link import Link, LinkStatistics
from autolink.agent.listener import Listener
from autolink.agent.received import Received
from autolink.agent.topic import Subscription, Topic, TopicStatistics

__all__ = [
    "ANYONE_TRUSTED", "Agent", "AgentStatistics",
    "Call",
    "Channel", "ChannelStatistics",
    "Handlers",
    "KeptLink",
    "Received",
    "Link", "LinkStatistics",
    "Listener",
    "Subscription", "Topic", "TopicStatistics",
]  # fmt: skip
