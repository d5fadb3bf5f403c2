"""The provider's side of an agency: look up, decide, and make the answer."""

from datetime import date, datetime
from typing import Any

from adapters.platform.desk import BUSINESS_SALT, Desk, layouts_of
from broker.intermediate import hold, provision
from broker.ledger.ledger import Change
from broker.linkage import outgoing
from broker.linkage.interface import (
    INWARD,
    REPLAY,
    Failed,
    answer_id,
)
from schemas.errors import Refusal
from schemas.law import table_at
from schemas.messages import (
    AnswerRequest,
    InquirySubject,
    ReceivedInquiry,
)


class Answering(Desk):
    """The answer, its provision record and its queued message are one unit."""

    async def _provide(self, opened: ReceivedInquiry, now: datetime) -> list[Change] | Failed:
        """Look up, decide, and make the answer: the changes of one unit."""
        at = now.isoformat(timespec="microseconds")
        control, permit = opened.control, opened.permit
        answer_message = answer_id(permit.processing_number)
        found = [
            await self._subject(c, s, control)
            for c, s in zip(permit.link_codes, opened.subjects, strict=True)
        ]
        request = self._provision_request(opened, tuple(number for number, _, _ in found))
        key = provision.stream(permit.processing_number)
        if await self.ledger.stream(key):
            return Failed(REPLAY, Refusal("L-304", "processing_number"))
        asked = provision.evolve(provision.State(), request)
        decided = provision.decide_provide(
            asked,
            answer_message,
            tuple(facts for _, facts, _ in found),
            control.layout in layouts_of(control.information),
            at,
        )
        if isinstance(decided, Refusal):
            return Failed(INWARD, decided)
        changes = [Change(key, 0, (request, *decided.events))]
        # The holds that were read must not have moved when the answer becomes durable.
        guards = {guard.stream: guard for _, _, guard in found if guard is not None}
        changes += guards.values()
        if not decided.held:
            answer = AnswerRequest(
                message_id=answer_message,
                in_reply_to=control.message_id,
                processing_number=permit.processing_number,
                inquirer=control.inquirer,
                office=control.office,
                official_role="automatic_response",
                law_version=control.law_version,
                law_row=control.law_row,
                information=control.information,
                code=decided.code,
                answered_at=at,
                non_disclosure=control.non_disclosure,
                link_codes=permit.link_codes,
                subjects=decided.subjects,
            )
            sent = self.linkage.send_answer(answer, now, self._random(BUSINESS_SALT))
            if isinstance(sent, Failed):
                return sent
            changes.append(Change(outgoing.stream(answer_message), 0, (sent,)))
        return changes

    async def _subject(
        self, code: str, subject: InquirySubject, control: Any
    ) -> tuple[str, provision.SubjectFacts, Change | None]:
        """Everything to be known about one subject: link code to number, guard, hold, reference database."""
        await self.follower.reach(self.ledger.position)
        rows = await self.follower.query(
            "SELECT person, position FROM code_conversion WHERE code_index = ?",
            (self.ledger.vault.blind("link_code", code),),
        )
        if not rows:
            return "", provision.SubjectFacts("", False, False, 0, {}), None
        who, position = rows[0]
        acquired = (await self.ledger.at([position]))[0]
        if acquired.erased:
            return "", provision.SubjectFacts("", False, False, 0, {}), None
        number = acquired.event.integrated_number
        fits = await self.addressing.guard(number, subject.guard_salt) == subject.guard
        held_stream = await self.ledger.stream(hold.stream(who))
        held = False
        for happened in held_stream:
            held = hold.evolve(held, happened.event)
        records = await self.follower.query(
            "SELECT position FROM reference_database WHERE person = ? AND layout = ? AND fiscal_year = ?",
            (who, control.layout, subject.fiscal_year),
        )
        source, payload = 0, {}
        if records:
            kept = (await self.ledger.at([records[0][0]]))[0]
            if not kept.erased:
                source, held_payload = kept.position, kept.event.payload
                payload = {item: held_payload[item] for item in control.items if item in held_payload}
        facts = provision.SubjectFacts(who, fits, held, source, payload)
        return number, facts, Change(hold.stream(who), len(held_stream))

    def _provision_request(
        self, opened: ReceivedInquiry, numbers: tuple[str, ...]
    ) -> provision.ProvisionRequested:
        control, permit = opened.control, opened.permit
        directory = self.linkage.directory
        partner = directory.partners.get(control.inquirer) if directory is not None else None
        table = table_at(date.fromisoformat(control.requested_at[:10]))
        return provision.ProvisionRequested(
            processing_number=permit.processing_number,
            inquiry_message=control.message_id,
            persons=tuple(self.person(number) if number else "" for number in numbers),
            office=control.office,
            official_role=control.official_role,
            inquirer=control.inquirer,
            inquirer_name=partner.agency.name if partner is not None else "",
            provider=self.linkage.agency.code,
            provider_name=self.linkage.agency.name,
            law_version=control.law_version,
            law_row=control.law_row,
            affair=next(row.affair for row in table.rows if row.row == control.law_row),
            information=control.information,
            layout=control.layout,
            items=control.items,
            requested_at=control.requested_at,
            valid_until=permit.valid_until,
            non_disclosure=control.non_disclosure,
            subjects=numbers,
            link_codes=permit.link_codes,
            fiscal_years=tuple(subject.fiscal_year for subject in opened.subjects),
        )
