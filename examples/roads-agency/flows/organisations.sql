-- Stores and vendors of the business application, each with the address of its main office.
WITH organisation AS (
    SELECT
        businessentityid,
        'STORE-' || CAST(businessentityid AS VARCHAR) AS accountnumber,
        name,
        'Customer' AS customertypecode,
        NULL AS websiteurl,
        -- The survey of a store is an XML document.
        regexp_match(demographics, '<NumberEmployees>([0-9]+)<')[1] AS employees,
        'Active' AS status
    FROM store
    UNION ALL
    SELECT
        businessentityid,
        accountnumber,
        name,
        'Vendor',
        purchasingwebserviceurl,
        NULL,
        CASE activeflag WHEN 'true' THEN 'Active' ELSE 'Inactive' END
    FROM vendor
),
main_office AS (
    SELECT entity_address.businessentityid, address.*
    FROM entity_address
    JOIN address ON address.addressid = entity_address.addressid
    WHERE entity_address.addresstypeid = 3
)
SELECT
    organisation.accountnumber,
    organisation.name,
    organisation.customertypecode,
    organisation.websiteurl,
    CAST(organisation.employees AS INTEGER) AS numberofemployees,
    main_office.addressline1 AS address1_line1,
    main_office.addressline2 AS address1_line2,
    main_office.city AS address1_city,
    main_office.postalcode AS address1_postalcode,
    state_province.name AS address1_stateorprovince,
    country.name AS address1_country,
    organisation.status
FROM organisation
LEFT JOIN main_office ON main_office.businessentityid = organisation.businessentityid
LEFT JOIN state_province ON state_province.stateprovinceid = main_office.stateprovinceid
LEFT JOIN country ON country.countryregioncode = state_province.countryregioncode
