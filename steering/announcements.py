"""What sites announce: by declaration in the inventory, and by what their appliances learned through BGP.

Reports are judged by the rules of the site's operator (topology/acceptance.py); what is refused is counted and shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from steering.errors import Unrecognised
from steering.inventory import Appliance, Inventory, Operator
from steering.topology.acceptance import Accepted, Gate, Rejection, Rules
from steering.topology.prefixes import Announced, Network, Source, network_of
from wire.prefixes import Prefixes


class Announcements:
    """Keeps `announced` in step with the inventory and the reports."""

    def __init__(self, announced: Announced) -> None:
        self.announced = announced
        self._inventory = Inventory()
        self._gates: dict[str, Gate] = {}
        self.reported: dict[str, Accepted] = {}
        """By appliance: what became of its last report."""
        self.unplaced = 0
        """Prefixes for which there was no room."""

    def declare(self, inventory: Inventory) -> None:
        """Go by this inventory. What appliances reported stays while they and their operator's rules do."""
        before, self._inventory = self._inventory, inventory
        for name, site in inventory.sites.items():
            if before.sites.get(name) is not site:
                self._replace(Source(name), [network_of(text) for text in site.prefixes])
        for name in before.sites.keys() - inventory.sites.keys():
            self._replace(Source(name), [])
        for name, operator in inventory.operators.items():
            if before.operators.get(name) is not operator:
                self._gates.pop(name, None)
        for source in list(self.announced.sources):
            if source.appliance and not self._stands(source, before):
                self._replace(source, [])
                self.reported.pop(source.appliance, None)

    def judge(self, message: Prefixes) -> Accepted:
        """What of a report is accepted. It changes nothing, and may run in a thread: 200,000 routes take a second.
        Raises `Unrecognised` for an appliance that the inventory does not know.
        """
        entry = self._entry(message.appliance)
        return self._gate(self._inventory.operator_of(entry.site)).accept(message.prefixes)

    def take(self, appliance: str, accepted: Accepted) -> None:
        """What an appliance learned, in place of what it reported before. Raises as `judge`."""
        entry = self._entry(appliance)
        self._replace(Source(entry.site, appliance), accepted.networks)
        self.reported[appliance] = accepted

    def _entry(self, appliance: str) -> Appliance:
        entry = self._inventory.appliances.get(appliance)
        if entry is None:
            raise Unrecognised(f"the inventory knows no appliance {appliance!r}")
        return entry

    def without_second(self) -> int:
        """Prefixes that only one of a site's several appliances announces: they would be gone with it. (Where a site
        has one appliance, everybody knows that it is alone.)
        """
        appliances = Counter(entry.site for entry in self._inventory.appliances.values())
        return sum(count for source, count in self.announced.of_one_appliance() if appliances[source.site] > 1)

    def rejected(self) -> Counter[Rejection]:
        """Routes of the last reports that were refused, by reason."""
        total: Counter[Rejection] = Counter()
        for accepted in self.reported.values():
            total.update(accepted.rejected)
        return total

    def _stands(self, source: Source, before: Inventory) -> bool:
        """Whether a report may still be believed: the same appliance at the same site, under the same rules."""
        entry = self._inventory.appliances.get(source.appliance)
        if entry is None or entry.site != source.site:
            return False
        name = self._inventory.sites[entry.site].operator
        return before.operators.get(name) is self._inventory.operators[name]

    def _gate(self, operator: Operator) -> Gate:
        gate = self._gates.get(operator.id)
        if gate is None:
            rules = Rules(
                allowed=operator.allowed,
                first_as=operator.first_as,
                origin_as=operator.origin_as,
                required_communities=operator.required_communities,
                forbidden_communities=operator.forbidden_communities,
                most=operator.most_prefixes,
            )
            gate = self._gates[operator.id] = Gate(rules)
        return gate

    def _replace(self, source: Source, networks: Iterable[Network]) -> None:
        self.unplaced += self.announced.replace(source, networks).refused
