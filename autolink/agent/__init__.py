"""Where it runs: an agent with its handlers, links, channels, topics and kept links."""

from autolink.agent.agent import ANYONE_TRUSTED as ANYONE_TRUSTED
from autolink.agent.agent import Agent as Agent
from autolink.agent.agent import AgentStatistics as AgentStatistics
from autolink.agent.call import Call as Call
from autolink.agent.channel import Channel as Channel
from autolink.agent.channel import ChannelStatistics as ChannelStatistics
from autolink.agent.handlers import Handlers as Handlers
from autolink.agent.kept import KeptLink as KeptLink
from autolink.agent.lane import Received as Received
from autolink.agent.link import Link as Link
from autolink.agent.link import LinkStatistics as LinkStatistics
from autolink.agent.listener import Listener as Listener
from autolink.agent.topic import Subscription as Subscription
from autolink.agent.topic import Topic as Topic
from autolink.agent.topic import TopicStatistics as TopicStatistics
