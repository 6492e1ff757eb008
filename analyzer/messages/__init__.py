"""CoAP messages to Spark messages: names, values, and which answer belongs to which request."""

from analyzer.messages.gist import Gist
from analyzer.messages.log import MessageLog
from analyzer.messages.reader import MessageReader, Request, SparkMessage
from analyzer.messages.summary import label, quote, summary

__all__ = ["Gist", "MessageLog", "MessageReader", "Request", "SparkMessage", "label", "quote", "summary"]
